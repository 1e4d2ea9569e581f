"""Reports what prelabels save: statistics, charts and tables; imports no learning."""
