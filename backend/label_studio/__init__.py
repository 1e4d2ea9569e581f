"""Label Studio's API, files, tokens, requests, labeling config and regions; imports `settings`
and what that imports."""
