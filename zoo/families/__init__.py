"""Model families: how parts are put together, one folder per method with its model card."""
