"""Loading and saving: releases, model cards, hashes."""
