"""The shipped recipes, FAMILY/NAME.yaml."""
