"""From labelled cutouts to a bundle: scaled images, the seven members, the embedding, figures and the model card (torch)."""
