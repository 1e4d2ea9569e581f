"""What only reproduces the paper: published tables, ablation, feature statistics and DINO;
imports `evaluation` and what that imports."""
