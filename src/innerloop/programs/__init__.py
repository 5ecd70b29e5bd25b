"""Languages of programs, and the search for programs that fit examples."""
