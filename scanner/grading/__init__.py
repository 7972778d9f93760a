"""What people say of candidates: grades with their history, how far graders agree, labels to train on."""
