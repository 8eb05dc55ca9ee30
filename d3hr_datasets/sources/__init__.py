"""Sources: a folder, a data set of torchvision, of `datasets`, or anyone's own -> labelled real images.

In: what `opening.open_source` takes. Out: `records.Images`, which every kind becomes; nothing behind it asks
of what kind they are. `image_folders`, `torchvision_datasets` and `huggingface` open theirs,
`user_datasets` adapts what others have made, `relabel` maps labels to a model's, `matched_images` finds
those of an artifact's classes, `resizing` reads a record.
"""
