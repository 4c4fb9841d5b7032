"""MMOLove's contract: what is sent, how, and what a response means."""
