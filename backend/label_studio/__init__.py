"""Talk to Label Studio: API, files, requests, labeling config, regions; may import `settings`."""
