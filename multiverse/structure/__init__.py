"""What a text is: blocks, their parts and what stands between them."""
