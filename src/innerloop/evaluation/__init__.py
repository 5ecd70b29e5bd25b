"""How learners are measured."""
