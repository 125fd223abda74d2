"""Token datasets: their files, their documents, and the parts they are made in."""
