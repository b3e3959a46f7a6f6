"""What can be downloaded: pretrained weights and data sets, by name, from a local folder, the hub or an ordinary package."""
