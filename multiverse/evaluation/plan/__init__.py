"""`multiverse plan`: what branching gains on machines that are not here, from a roofline and the shapes of answers."""
