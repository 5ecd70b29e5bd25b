"""Core concepts: tasks, likelihoods, learners, meta-training and meta-testing."""
