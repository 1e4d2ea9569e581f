"""Reports what prelabels save: statistics and tables; imports no learning."""
