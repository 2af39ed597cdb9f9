"""What our own figures are held against, as plain as it can be written."""
