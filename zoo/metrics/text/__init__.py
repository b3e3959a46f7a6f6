"""Texts against reference texts: tokens, BLEU, CIDEr, ROUGE-L, edit distance.

Plain Python on strings, with the formulas of the COCO caption evaluation (Chen et al. 2015, arXiv 1504.00325). Scores are shares between
0 and 1, only CIDEr lies between 0 and 10, as in that evaluation; papers print them times 100.
"""
