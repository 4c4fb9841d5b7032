"""What happens when an account is made: the player is found and reported."""
