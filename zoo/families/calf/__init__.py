"""CALF: forecasting by a language model whose text branch teaches its time branch."""
