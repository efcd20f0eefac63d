"""How a verification is shown: a page (`html`), a table (`terminal`), and what build servers read (`junit`)."""
