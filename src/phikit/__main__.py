from phikit.cli import main

main()
