"""What lies on disk: images, DICOM series, landmark files, manifests."""
