"""`probe`: what a channel-attention block can do, on small generated tasks that each need one ability."""
