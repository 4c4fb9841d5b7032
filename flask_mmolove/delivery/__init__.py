"""The delivery: takes what is due out of the outbox, and gets it done."""
