"""Conversations about pictures: what their stages read, validate by, measure and show."""
