"""CoCa: a dual encoder with a decoder that writes captions."""
