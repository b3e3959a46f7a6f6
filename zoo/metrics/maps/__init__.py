"""Linear maps between two spaces of vectors, and how well they translate: languages to one another, or one modality to another.

Rows are paired: x_i and y_i mean the same. A map R is (E, D) and is applied as `x R^T`.
"""
