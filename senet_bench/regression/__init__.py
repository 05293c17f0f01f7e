"""Whether a change made a network bigger, slower or worse: what is checked, judged and compared with."""
