"""How good a bundle is: measured on labelled sets and single images, compared with others, put on a page and a card."""
