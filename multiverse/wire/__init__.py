"""What travels over HTTP: fields of answers, events of branches, and the clients that read them."""
