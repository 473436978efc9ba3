"""The stages as plain PyTorch computes them: fp32, eager, NCHW, hooks, a synchronisation a step.

Written from the mathematics and the observed behaviour of the authors' code (docs/performance.md says where a choice
was open), without its faults: every choice that was open went to the faster side, so that ratios do not flatter us.
"""
