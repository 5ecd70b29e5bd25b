"""The theory: tasks, likelihoods, learners, meta-gradients, meta-training and
meta-testing.
"""
