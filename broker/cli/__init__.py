"""The commands. Each file holds one command or one group of them; they are composition roots."""
