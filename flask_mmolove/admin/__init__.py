"""What the owner of a site sees and does."""
