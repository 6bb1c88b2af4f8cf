"""One run over several ranks: who they are, how they start, and how they agree. No tensor is moved here."""
