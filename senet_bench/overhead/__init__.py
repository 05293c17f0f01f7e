"""What a given overhead buys: which networks fit it, and which of them errs least."""
