"""Drawing, words and page parts that every report shares."""
