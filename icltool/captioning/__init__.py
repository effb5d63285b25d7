"""What a captioner is asked outside an evaluation: pictures from a file or picked by hand, with or without demonstrations."""
