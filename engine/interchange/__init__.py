"""What others made and what they read: FKD label folders, clusters as labels, sets whose class order is in doubt."""
