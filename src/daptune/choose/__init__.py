"""Compare methods by cross-validation on labelled images, and choose one: `--method auto` and `daptune compare`.

trials.py      folds, shared image features, and the fits
comparison.py  what was measured, and the rule of the choice
choice.py      the candidates in the order of preference, and the choice of a run
"""
