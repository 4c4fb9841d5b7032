"""What a milestone is worth: the referral, and the site's reward callback."""
