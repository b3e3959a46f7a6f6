"""What all models of time series share: the description of their data, the contract, and the forecasts that need no model."""
