"""Publishing: an artifact -> its card, and its repository on the Hub."""
