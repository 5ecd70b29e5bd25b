"""The page: classes taught from a few examples, and how learning to learn works."""
