"""Where usage events end up. May import the core and its ports."""
