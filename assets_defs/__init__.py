"""What this deployment shows and runs; ``resources`` says where its data is."""
