"""The networks that ET-Net is compared with (paper Sec. 3, Tables 1 and 2), and further ones of a library."""
