"""What is inside a raw asset: detectors, readers, quality checks, previews and the canonical dataset."""
