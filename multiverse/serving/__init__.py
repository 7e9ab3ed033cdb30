"""What both adapters share while they serve: who gives way, what a failure ends, whether the books agree."""
