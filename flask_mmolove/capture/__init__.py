"""What happens when a visitor arrives: their token is kept until they sign up."""
