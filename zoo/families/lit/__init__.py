"""LiT: a pretrained image encoder stays locked while the text side is tuned to it."""
